"""Tables of text as Markdown and LaTeX."""

from collections.abc import Collection

import pandas

# Characters that LaTeX does not print literally.
_LATEX = str.maketrans(
  {
    '\\': r'\textbackslash{}',
    '&': r'\&',
    '%': r'\%',
    '$': r'\$',
    '#': r'\#',
    '_': r'\_',
    '{': r'\{',
    '}': r'\}',
    '~': r'\textasciitilde{}',
    '^': r'\textasciicircum{}',
    '±': r'$\pm$',
    '–': '--',
    '−': r'$-$',
    '<': r'$<$',
  }
)


def to_markdown(table: pandas.DataFrame, names: Collection[str]) -> str:
  """Returns a pipe table, padded for a readable source.

  Args:
    table: Cells of text.
    names: Columns that hold names, aligned to the left. The other columns are
      aligned to the right.
  """
  escaped = table.map(lambda cell: cell.replace('|', r'\|'))
  return escaped.to_markdown(
    index=False,
    # Text keeps its format.
    disable_numparse=True,
    colalign=['left' if column in names else 'right' for column in table],
  )


def to_latex(
  table: pandas.DataFrame, names: Collection[str], caption: str, label: str
) -> str:
  r"""Returns a table environment. It needs `\usepackage{booktabs}`.

  Args:
    table: Cells of text.
    names: Columns that hold names, aligned to the left. The other columns are
      aligned to the right.
    caption: Text of the caption, not yet escaped.
    label: For `\ref`.
  """
  escaped = table.map(_escape).rename(columns=_escape)
  return escaped.style.hide(axis='index').to_latex(
    column_format=''.join('l' if column in names else 'r' for column in table),
    caption=_escape(caption),
    label=label,
    hrules=True,
    position_float='centering',
  )


def _escape(text: str) -> str:
  return text.translate(_LATEX)
