"""Data: sources -> partition -> per-client arrays -> federated task.

Own data become the `task` of an `Experiment` by one of

  from_arrays       images, series, tables, tokens or texts as arrays
  from_dataframe    a table of pandas
  from_csv          a file of a table; from_parquet likewise
  from_hugging_face a data set of Hugging Face's `datasets`

which take a column of clients, or deal examples out by any partition.
`make_sensor_clients` and `make_text_clients` make clients by formulas.
`pad_series` pads new series for a model that takes masked ones.
"""

import importlib
from typing import Any

# Name -> module. They are imported when they are first used.
_NAMES = {
  'from_arrays': 'own_data',
  'from_csv': 'own_data',
  'from_dataframe': 'own_data',
  'from_hugging_face': 'hugging_face',
  'from_parquet': 'own_data',
  'make_sensor_clients': 'generators',
  'make_text_clients': 'generators',
  'pad_series': 'ragged',
}

__all__ = [*_NAMES]


def __getattr__(name: str) -> Any:
  if name not in _NAMES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  module = importlib.import_module(f'{__name__}.{_NAMES[name]}')
  return getattr(module, name)
