"""Settings of models that no machine could train are refused when built."""

import types

import psutil
import pytest

from tff_fedsa import settings
from tff_fedsa.data import input_spec
from tff_fedsa.models import model_config


def test_features_have_a_bound():
  with pytest.raises(settings.SettingsError, match='feature_dim'):
    model_config.ModelConfig(feature_dim=100_000_000)


def test_tables_have_to_fit(monkeypatch):
  config = model_config.ModelConfig('digits_mlp', feature_dim=1_000_000)
  # TensorFlow's limit, whatever the machine.
  with pytest.raises(settings.SettingsError, match='of 4.0 GB each'):
    config.build(input_spec.InputSpec((8, 8, 1)), 1000)
  free = types.SimpleNamespace(available=200_000_000)
  monkeypatch.setattr(psutil, 'virtual_memory', lambda: free)
  with pytest.raises(settings.SettingsError, match='0.2 GB of memory are free'):
    config.build(input_spec.InputSpec((8, 8, 1)), 10)
