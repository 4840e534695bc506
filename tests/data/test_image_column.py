"""Images that a column of a table names."""

import numpy as np
import pandas as pd
import PIL.Image
import pytest

from tff_fedsa.data import image_files
from tff_fedsa.data import own_data
from tff_fedsa.data import task_spec
from tff_fedsa.data import tasks

_ROWS = 24


@pytest.fixture
def table(tmp_path):
  """A CSV file that names images of two kinds of files, one of 16 bits."""
  (tmp_path / 'scans').mkdir()
  rng = np.random.default_rng(0)
  names = []
  for row in range(_ROWS):
    names.append(f'scans/{row}.png')
    if row == 1:
      pixels = rng.integers(0, 65536, (6, 6)).astype(np.uint16)
    else:
      pixels = rng.integers(0, 256, (6, 6, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / names[-1])
  frame = pd.DataFrame(
    {
      'scan': names,
      'age': rng.normal(size=_ROWS),
      'note': [f'word{row} end' for row in range(_ROWS)],
      'ill': np.arange(_ROWS) % 2,
      'hospital': ['a', 'b'] * (_ROWS // 2),
    }
  )
  frame.to_csv(tmp_path / 'scans.csv', index=False)
  return tmp_path / 'scans.csv', frame


def _rows(task):
  """Returns all stored inputs of a task, sorted as bytes."""
  return sorted(
    row.tobytes()
    for client in task.clients
    for part in client
    for row in part['x']
  )


def test_images_are_those_of_the_reader_of_files(table):
  path, frame = table
  files = [str(path.parent / name) for name in frame['scan']]
  expected = image_files.read(files, 8).images
  cache = path.parent / 'cache'
  spec = task_spec.TaskSpec(
    dataset='csv',
    data_dir=str(path),
    label_column='ill',
    client_column='hospital',
    image_column='scan',
    image_size=8,
    cache_dir=str(cache),
  )
  spec.refuse_ignored()
  task = tasks.load_task(spec)
  assert task.input_spec.model_shape == (8, 8, 3)
  assert task.input_spec.offset == -1.0
  assert _rows(task) == sorted(image.tobytes() for image in expected)
  assert "beside 'scan': ['age', 'note']" in ''.join(task.notices)
  assert len([*cache.iterdir()]) == 1
  options = dict(label='ill', client='hospital', image='scan', image_size=8)
  for again in (
    own_data.from_csv(path, **options),
    own_data.from_dataframe(frame, image_dir=path.parent, **options),
    own_data.from_dataframe(frame.assign(scan=files), **options),
  ):
    assert own_data.digest(again) == own_data.digest(task)


def test_python_keeps_and_lays_out_images_as_flags_do(table, monkeypatch):
  path, _ = table
  transparent = PIL.Image.new('RGBA', (8, 8), (0, 0, 0, 0))
  transparent.save(path.parent / 'scans' / '0.png')
  options = dict(label='ill', client='hospital', image='scan', image_size=8)
  caches = path.parent / 'caches'
  monkeypatch.setenv('XDG_CACHE_HOME', str(caches))
  found = {}
  for colour in ('white', 'black'):
    cache = path.parent / colour
    task = own_data.from_csv(
      path, cache_dir=cache, alpha_background=colour, **options
    )
    assert len([*cache.iterdir()]) == 1
    spec = task_spec.TaskSpec(
      dataset='csv',
      data_dir=str(path),
      label_column='ill',
      client_column='hospital',
      image_column='scan',
      image_size=8,
      cache_dir='none',
      alpha_background=colour,
    )
    found[colour] = own_data.digest(task)
    assert found[colour] == own_data.digest(tasks.load_task(spec))
  assert found['white'] != found['black']
  own_data.from_csv(path, cache_dir='none', **options)
  assert not caches.exists()
  own_data.from_csv(path, **options)
  assert len([*(caches / 'tff_fedsa').iterdir()]) == 1
  with pytest.raises(ValueError, match='alpha_background: Unknown colour'):
    own_data.from_csv(path, alpha_background='no colour', **options)
  for option in ({'cache_dir': 'none'}, {'alpha_background': 'black'}):
    with pytest.raises(ValueError, match='no column of image files'):
      own_data.from_csv(path, label='ill', client='hospital', **option)


def test_images_are_inputs_beside_texts_and_columns(table):
  path, _ = table
  task = own_data.from_csv(
    path, label='ill', client='hospital', image='scan', text='note'
  )
  assert task.input_spec.model_shape == {'note': (2,), 'scan': (32, 32, 3)}
  task = own_data.from_csv(
    path,
    label='ill',
    client='hospital',
    image='scan',
    drop=['note'],
    with_columns=True,
  )
  assert task.input_spec.model_shape == {'scan': (32, 32, 3), 'columns': (1,)}


def test_files_that_are_no_images_are_refused(table):
  path, frame = table
  options = dict(label='ill', client='hospital', image_dir=path.parent)

  def load(image='scan', **columns):
    own_data.from_dataframe(frame.assign(**columns), image=image, **options)

  with pytest.raises(ValueError, match="'age', found .* in row 0"):
    load('age')
  with pytest.raises(ValueError, match="names 24 files .*word0 end' in row 0"):
    load('note')
  with pytest.raises(ValueError, match='expected different columns'):
    load('ill')
  with pytest.raises(ValueError, match="no column 'scam'"):
    load('scam')
  (path.parent / 'scans' / '3.png').write_bytes(b'no image')
  with pytest.raises(ValueError, match='3.png.* is not a readable image'):
    load()


@pytest.mark.parametrize(
  'options, message',
  [
    ({'dataset': 'npz', 'image_column': 'x'}, 'has no columns'),
    ({'alpha_background': 'black'}, 'only files of images'),
    ({'cache_dir': 'x'}, 'file of yours'),
  ],
)
def test_settings_without_effect_are_refused(options, message):
  options = {'dataset': 'csv', 'data_dir': 'x', **options}
  with pytest.raises(ValueError, match=message):
    task_spec.TaskSpec(**options).refuse_ignored()
