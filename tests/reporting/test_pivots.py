"""Pivot tables: known cells, marks, and a width that fits a column."""

import re
import shutil
import subprocess

from matplotlib import font_manager
from matplotlib import textpath
import numpy as np
import pytest

from tests.reporting import made_up
from tff_fedsa.reporting import comparison
from tff_fedsa.reporting import groups as groups_lib
from tff_fedsa.reporting import pivots
from tff_fedsa.reporting import runs
from tff_fedsa.reporting import tables

_ALPHAS = ('0.1', '0.5', '1.0')
_LAST = {'fedsa': 0.9, 'fedproto': 0.8, 'local': 0.85}


def _write(root, alphas=_ALPHAS, step=0.1):
  for index, alpha in enumerate(alphas):
    for method, last in _LAST.items():
      made_up.write_repeats(
        root,
        f'{method},alpha={alpha}',
        [last - index * step, last - index * step - 0.02],
        algorithm=method,
        alpha=alpha,
        partition=(index,),
        classifiers=('head',) if method == 'local' else ('prototype', 'head'),
      )


def _groups(root):
  return groups_lib.group(
    runs.find([str(root)], made_up.DEFAULTS), measurement=['alpha']
  )


@pytest.fixture
def groups(tmp_path):
  _write(tmp_path)
  return _groups(tmp_path)


def test_methods_are_rows_and_settings_are_columns(groups):
  means = tables.over_seeds(groups, tables.per_run(groups))
  main, prototype, head = pivots.build(means)
  assert main.rows == ['fedproto', 'fedsa', 'local'] == head.rows
  assert main.columns == [f'alpha={alpha}' for alpha in _ALPHAS]
  expected = [[_LAST[m] - 0.1 * i - 0.01 for i in range(3)] for m in main.rows]
  np.testing.assert_allclose(main.means, expected)
  np.testing.assert_allclose(main.stds, np.full([3, 3], 0.02 / np.sqrt(2)))
  # Local has no prototypes.
  assert prototype.rows == ['fedproto', 'fedsa']
  # 40 test examples; the error is largest for the accuracy next to a half.
  runs_of = np.array([0.6, 0.58])
  error = np.sqrt(runs_of * (1 - runs_of) / 40).mean()
  assert main.errors[2] == pytest.approx(error)


def test_best_and_second_of_a_column():
  means = np.array([[0.91, 0.5], [0.9100001, 0.7], [0.8, np.nan], [0.7, 0.6]])
  # What looks equal is equal.
  assert pivots.ranks(means).tolist() == [[1, 0], [1, 1], [2, 0], [0, 2]]
  assert pivots.ranks(means[:1]).tolist() == [[0, 0]]


def test_a_report_shows_the_statistic_that_it_tests(tmp_path):
  for alpha, best in (('0.1', 0.9), ('0.5', 0.8)):
    for name in ('fedsa', 'local'):
      made_up.write(
        tmp_path / f'alpha={alpha},{name}/seed_0',
        [0.1, best, 0.5, 0.4],
        algorithm=name,
        alpha=alpha,
      )
  report = comparison.Comparison(_groups(tmp_path), statistic='best').texts('x')
  assert 'test examples in the best round: mean' in report['report.md']
  table = report['report.md'].split('## Accuracy by setting')[1]
  assert '90.0' in table and '80.0' in table and '40.0' not in table[:900]


def test_a_report_over_settings(groups):
  texts = comparison.Comparison(groups).texts('a title')
  report = texts['report.md']
  assert 'dirichlet 0.1 / dirichlet 0.5 / dirichlet 1.0' in report
  assert re.search(
    r'\| FedSA +\| +\*\*89.0 ± 1.4\*\* \| +\*\*79.0 ± 1.4\*\* \|', report
  )
  assert re.search(r'\| Local +\| +<u>84.0 ± 1.4</u> \|', report)
  # Each method is tested within its setting.
  table = texts['significance.csv']
  assert table.count('fedsa,alpha=0.5') == 3  # FedProto's two, Local's head.


def test_latex_fits_one_column(tmp_path):
  _write(tmp_path, [f'{i / 10}' for i in range(1, 10)], step=0.01)
  tex = comparison.Comparison(_groups(tmp_path)).texts('x')['comparison.tex']
  assert r'\textbf{89.0}$_{\pm 1.4}$' in tex and r'\underline{84.0}' in tex
  blocks = re.findall(r'(?s)\\midrule\n(.*?)\\bottomrule', tex)
  # Nine columns do not fit beside each other.
  assert len(blocks) > 3
  for block in blocks:
    rows = [
      line.removesuffix(r' \\').split(' & ') for line in block.split('\n')
    ]
    widths = [max(map(_width, cells)) for cells in zip(*rows[:-1])]
    assert sum(widths) + 6 * len(widths) < 230, block


def _width(cell):
  """Returns the width of a cell in points, in LaTeX's font at 9 points."""
  text, _, small = cell.partition(r'$_{\pm ')
  text = re.sub(r'\\\w+\{(.*)\}', r'\1', text)
  font = font_manager.FontProperties(family='cmr10', size=9)
  measure = textpath.text_to_path.get_text_width_height_descent
  width, _, _ = measure(text, font, False)
  if small:
    # The plus-minus sign has the width of almost two digits.
    font = font_manager.FontProperties(family='cmr10', size=6)
    width += measure('00' + small.removesuffix('}$'), font, False)[0]
  return width


@pytest.mark.skipif(shutil.which('pdflatex') is None, reason='no LaTeX')
def test_latex_compiles_without_overfull_boxes(groups, tmp_path):
  texts = comparison.Comparison(groups).texts('x')
  content = texts['comparison.tex'] + texts['significance.tex']
  (tmp_path / 'all.tex').write_text(
    '\\documentclass[twocolumn]{article}\n\\usepackage{booktabs}\n'
    f'\\begin{{document}}\n{content}\n\\end{{document}}\n'
  )
  program = subprocess.run(
    ['pdflatex', '-interaction=nonstopmode', '-halt-on-error', 'all.tex'],
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  assert program.returncode == 0, program.stdout[-2000:]
  assert 'Overfull' not in program.stdout
