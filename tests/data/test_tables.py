"""Tables become sources, from memory or from a file."""

import numpy as np
import pandas as pd
import pytest

from tff_fedsa.data import dealing
from tff_fedsa.data import tables
from tff_fedsa.data import task_spec
from tff_fedsa.data import tasks


def _frame(rows=60):
  rng = np.random.default_rng(0)
  return pd.DataFrame(
    {
      'age': rng.normal(50, 10, rows),
      'sex': rng.choice(['f', 'm'], rows),
      'visits': rng.integers(0, 9, rows),
      'smokes': rng.random(rows) < 0.5,
      'hospital': np.repeat(['b', 'a', 'c'], rows // 3),
      'ill': rng.choice(['yes', 'no'], rows),
    }
  )


def test_columns_become_numbers():
  frame = _frame()
  source = tables.source_of(frame, label='ill', client='hospital', name='mine')
  assert source.images.dtype == np.float32
  expected = np.stack(
    [
      frame['age'],
      frame['sex'] == 'f',
      frame['sex'] == 'm',
      frame['visits'],
      frame['smokes'],
    ],
    axis=1,
  ).astype(np.float32)
  np.testing.assert_array_equal(source.images, expected)
  assert source.class_names == ('no', 'yes')
  np.testing.assert_array_equal(source.client_ids, frame['hospital'])
  (notice,) = source.notices
  assert "text columns ['sex'] became" in notice


@pytest.mark.parametrize('form', ['csv', 'tsv', 'parquet'])
def test_files_are_the_table(tmp_path, form):
  path = tmp_path / f'mine.{form}'
  frame = _frame()
  if form == 'parquet':
    frame.to_parquet(path)
  else:
    frame.to_csv(path, index=False, sep='\t' if form == 'tsv' else ',')
  spec = task_spec.TaskSpec(
    dataset='parquet' if form == 'parquet' else 'csv',
    data_dir=str(path),
    label_column='ill',
    client_column='hospital',
  )
  spec.refuse_ignored()
  task = tasks.load_task(spec)
  assert task.client_names == ('a', 'b', 'c')
  assert [len(c.train['y']) for c in task.clients] == [15] * 3
  # Rows of client 'a' are the second third.
  own = np.sort(np.concatenate([part['x'][:, 0] for part in task.clients[0]]))
  np.testing.assert_allclose(
    own, np.sort(frame['age'][20:40].astype(np.float32)), rtol=1e-6
  )
  assert 'rows of a table, float32[5]' in tasks.report(task)


def test_rows_are_dealt_out_without_a_column_of_clients(tmp_path):
  path = tmp_path / 'mine.csv'
  _frame().to_csv(path, index=False)
  spec = task_spec.TaskSpec(
    dataset='csv',
    data_dir=str(path),
    label_column='ill',
    drop_columns=('hospital',),
    num_clients=2,
    partition='iid',
  )
  spec.refuse_ignored()
  source, partition = dealing.load(spec)
  assert source.images.shape == (60, 5) and partition.num_clients == 2


def test_clients_of_one_row_are_left_out_with_a_notice():
  frame = _frame()
  frame.loc[0, 'hospital'] = 'alone'
  source = tables.source_of(frame, label='ill', client='hospital')
  partition = dealing.natural_clients(task_spec.TaskSpec(), source)
  assert partition.client_names == ('a', 'b', 'c')
  assert 'left out 1 clients with one example: alone.' in partition.notices[0]
  with pytest.raises(ValueError, match='two examples or more, found 60'):
    dealing.natural_clients(
      task_spec.TaskSpec(),
      tables.source_of(
        _frame().assign(row=range(60)), label='ill', client='row'
      ),
    )


@pytest.mark.parametrize(
  'change, options, message',
  [
    (None, {'label': 'il'}, "no column 'il' .did you mean 'ill'"),
    (None, {'client': 'ill'}, 'expected different columns'),
    (None, {'drop': ['ill']}, 'expected different columns'),
    (
      {'age': np.nan},
      {},
      "column 'age' misses 60 values; the first is in row 0",
    ),
    ({'hospital': None}, {}, "column 'hospital' misses 60"),
    ({'day': pd.Timestamp(0)}, {}, "'day' holds dates"),
    ({'name': [str(i) for i in range(60)]}, {}, "'name' holds 60 different"),
    ({'ill': 0.5}, {}, 'integer labels, found 0.5'),
    (None, {'drop': ['age', 'sex', 'visits', 'smokes']}, 'expected columns'),
  ],
)
def test_unsuitable_tables_are_refused(change, options, message):
  frame = _frame().assign(**(change or {}))
  with pytest.raises(ValueError, match=message):
    tables.source_of(frame, **{'label': 'ill', 'client': 'hospital', **options})


def test_unsuitable_files_are_refused(tmp_path):
  def load(name, form='csv'):
    tasks.load_task(
      task_spec.TaskSpec(dataset=form, data_dir=str(tmp_path / name))
    )

  with pytest.raises(FileNotFoundError, match='No file at'):
    load('none.csv')
  (tmp_path / 'empty.csv').write_text('')
  (tmp_path / 'header.csv').write_text('a,label\n')
  with pytest.raises(ValueError, match='no table of the form csv'):
    load('empty.csv')
  with pytest.raises(ValueError, match='expected rows, found none'):
    load('header.csv')
  with pytest.raises(ValueError, match='no table of the form parquet'):
    load('header.csv', 'parquet')
  with pytest.raises(ValueError, match="'csv' needs data_dir"):
    tasks.load_task(task_spec.TaskSpec(dataset='csv'))


@pytest.mark.parametrize(
  'options, message',
  [
    ({'client_column': 'a', 'num_clients': 3}, 'clients of its own'),
    ({'client_column': 'a', 'alpha': 0.5}, 'clients of its own'),
    ({'dataset': 'npz', 'label_column': 'y'}, 'has no columns'),
    ({'sequence_length': 3}, 'the inputs are no texts'),
    ({'dataset': 'wine', 'data_dir': 'x'}, 'needs no file'),
  ],
)
def test_settings_without_effect_are_refused(options, message):
  options = {'dataset': 'csv', **options}
  with pytest.raises(ValueError, match=message):
    task_spec.TaskSpec(**options).refuse_ignored()


@pytest.mark.parametrize(
  'name, shape, classes', [('wine', (13,), 3), ('breast_cancer', (30,), 2)]
)
def test_tables_of_scikit_learn(name, shape, classes):
  task = tasks.load_task(
    task_spec.TaskSpec(dataset=name, num_clients=4, alpha=1.0)
  )
  assert task.input_spec.shape == shape and task.num_classes == classes
