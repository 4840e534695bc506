"""Numbers of trainable parameters: torchvision's, and those of heads."""

import functools

import pytest

from benchmarks import parameter_counts

_slow = functools.partial(pytest.param, marks=pytest.mark.slow)

_LARGE = ('vit_b_16', 'vit_b_32')
# test_training_steps.py builds them for HtFE8 and counts their parameters.
_OF_HTFE8 = ('resnet50', 'resnet101', 'resnet152')


def _sizes(name, feature_dim=512, shape=(32, 32, 3), num_classes=10):
  """Returns trainable parameters of extractor and head."""
  found = parameter_counts.sizes(name, shape, num_classes, feature_dim)
  return found.extractor, found.head


@pytest.mark.parametrize(
  'name',
  [
    _slow(name) if name in _LARGE else name
    for name in parameter_counts.TORCHVISION
    if name not in _OF_HTFE8
  ],
)
def test_trainable_parameters_equal_torchvisions(name):
  expected, num_features = parameter_counts.TORCHVISION[name]
  extractor, head = _sizes(name, num_features)
  if name.startswith('vit'):
    # The reference's head is one layer more.
    assert head == (768 * 768 + 768) + (768 * 10 + 10)
    head = 768 * 10 + 10
  assert extractor + head == expected
  assert extractor == parameter_counts.torchvision_extractor(name)


@pytest.mark.slow
@pytest.mark.parametrize(
  'name, expected',
  [
    # For ImageNet, as torchvision's documentation lists them.
    ('resnet18', 11_689_512),
    ('mobilenet_v2', 3_504_872),
    ('googlenet', 6_624_904),
  ],
)
def test_parameters_do_not_depend_on_the_size_of_images(name, expected):
  # test_golden_torchvision.py assigns torchvision's weights at a size of 64.
  _, num_features = parameter_counts.TORCHVISION[name]
  sizes = _sizes(name, num_features, (224, 224, 3), 1000)
  assert sum(sizes) == expected


@pytest.mark.slow
def test_vit_for_imagenet():
  extractor, _ = _sizes('vit_b_16', 768, (224, 224, 3))
  assert extractor + 768 * 1000 + 1000 == 86_567_656


@pytest.mark.parametrize(
  'name, expected',
  [
    # Stem 9,536; a block 73,984; 230,144; 919,040 with shortcut and BatchNorm.
    ('resnet4', 9_536 + 73_984),
    ('resnet6', 9_536 + 73_984 + 230_144),
    ('resnet8', 9_536 + 73_984 + 230_144 + 919_040),
    # The first three blocks in full width are the last three in half.
    ('resnet10_3x3', 928 + 18_560 + 57_728 + 230_144 + 919_040),
    ('fedavg_cnn', 873_408),
  ],
)
def test_other_extractors(name, expected):
  extractor, head = _sizes(name)
  assert extractor == expected
  assert head == 512 * 10 + 10


_TO_FEATURES = 64 * 512 + 512


@pytest.mark.parametrize(
  'name, shape, expected',
  [
    ('table_mlp', (14,), 14 * 64 + 64 + 64 * 64 + 64 + _TO_FEATURES),
    (
      'table_resnet',
      (14,),
      # BatchNorm of 64, to 128, and back.
      14 * 64
      + 64
      + 2 * (2 * 64 + (64 * 128 + 128) + (128 * 64 + 64))
      + 2 * 64
      + _TO_FEATURES,
    ),
    (
      'sensor_cnn',
      (128, 9),
      5 * 9 * 32 + 32 + 5 * 32 * 64 + 64 + _TO_FEATURES,
    ),
    ('text_mean', (64,), 10_000 * 32 + 32 * 512 + 512),
    (
      'text_cnn',
      (64,),
      10_000 * 32 + (3 + 4 + 5) * 32 * 32 + 3 * 32 + 96 * 512 + 512,
    ),
  ],
)
def test_extractors_of_other_kinds(name, shape, expected):
  size = 10_000 if name.startswith('text') else None
  found = parameter_counts.sizes(name, shape, 10, 512, size)
  assert (found.extractor, found.head) == (expected, 512 * 10 + 10)


def test_group_norm_has_the_parameters_of_batch_norm():
  assert _sizes('resnet8_gn') == _sizes('resnet8')


@pytest.mark.parametrize(
  'widths, num_blocks, flat',
  [((), 1, 14 * 14 * 32), ((1024, 512), 2, 5 * 5 * 64)],
)
def test_hcnns(widths, num_blocks, flat):
  convs = [5 * 5 * 32 + 32, 5 * 5 * 32 * 64 + 64]
  dense = 0
  previous = flat
  for width in (*widths, 512):
    dense += previous * width + width
    previous = width
  name = '_'.join([f'hcnn{num_blocks}', *map(str, widths)])
  extractor, _ = _sizes(name, shape=(32, 32, 1))
  assert extractor == sum(convs[:num_blocks]) + dense
