"""Tables of text as Markdown and LaTeX."""

from collections.abc import Collection, Sequence

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
  content = tabular(table.map(escape), list(map(escape, table)), names)
  return in_table(content, caption, label)


def tabular(
  table: pandas.DataFrame,
  heads: Sequence[str],
  names: Collection[str] = ('method',),
) -> str:
  """Returns a tabular environment.

  Args:
    table: Cells of LaTeX.
    heads: Headings of the columns, LaTeX.
    names: Columns of the table that are aligned to the left.
  """
  alignment = ''.join('l' if column in names else 'r' for column in table)
  rows = [' & '.join(cells) + r' \\' for cells in table.to_numpy()]
  return '\n'.join(
    [
      f'\\begin{{tabular}}{{{alignment}}}',
      r'\toprule',
      ' & '.join(heads) + r' \\',
      r'\midrule',
      *rows,
      r'\bottomrule',
      r'\end{tabular}',
    ]
  )


def in_table(content: str, caption: str, label: str) -> str:
  r"""Returns a table environment for one column of a paper.

  Args:
    content: Its tabular environments.
    caption: Text of the caption, not yet escaped.
    label: For `\ref`.
  """
  return '\n'.join(
    [
      r'\begin{table}',
      r'\centering',
      r'\small',
      r'\setlength{\tabcolsep}{3pt}',
      f'\\caption{{{escape(caption)}}}',
      f'\\label{{{label}}}',
      content,
      r'\end{table}',
      '',
    ]
  )


def marked_markdown(text: str, rank: int) -> str:
  """Returns the text in bold for rank 1, underlined for rank 2."""
  return {1: f'**{text}**', 2: f'<u>{text}</u>'}.get(rank, text)


def marked_latex(text: str, rank: int) -> str:
  """Returns the text in bold for rank 1, underlined for rank 2."""
  return {1: rf'\textbf{{{text}}}', 2: rf'\underline{{{text}}}'}.get(rank, text)


def escape(text: str) -> str:
  """Returns LaTeX that prints the text literally."""
  return text.translate(_LATEX)
