"""The files of a report over runs: tables, tests and figures by file name."""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Optional

from matplotlib import figure as figure_lib
import pandas

from tff_fedsa.reporting import architectures
from tff_fedsa.reporting import client_figures
from tff_fedsa.reporting import comparison_figures
from tff_fedsa.reporting import documents
from tff_fedsa.reporting import fairness
from tff_fedsa.reporting import groups as groups_lib
from tff_fedsa.reporting import names
from tff_fedsa.reporting import pivots
from tff_fedsa.reporting import rendering
from tff_fedsa.reporting import setting_figures
from tff_fedsa.reporting import significance
from tff_fedsa.reporting import tables
from tff_fedsa.reporting import time_to_accuracy

DEFAULT_REFERENCE = 'fedsa'


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Compares runs of several configurations.

  Attributes:
    groups: Result of `groups.group`, at least one with a finished run.
    reference: Configuration or method to compare with, see
      `significance.references`; figures and texts raise a ReportError if there
      is none. Default: `DEFAULT_REFERENCE`, if the runs have it.
    statistic: One of `tables.STATISTICS`. Its differences are tested, and
      tables of methods by settings show it.
    test: One of `significance.TESTS`.
  """

  groups: Sequence[groups_lib.Group]
  reference: Optional[str] = None
  statistic: str = 'last'
  test: str = 't'

  @functools.cached_property
  def _values(self) -> pandas.DataFrame:
    return tables.per_run(self.groups)

  @functools.cached_property
  def _means(self) -> pandas.DataFrame:
    return tables.over_seeds(self.groups, self._values)

  @functools.cached_property
  def _tested(self) -> Optional[pandas.DataFrame]:
    """Differences to the reference; None if there is no reference."""
    reference = self.reference or DEFAULT_REFERENCE
    if self.reference is None and not significance.references(
      self._values, reference
    ):
      return None
    return significance.compare(
      self._values, reference, statistic=self.statistic, test=self.test
    )

  def figures(self) -> dict[str, tuple[figure_lib.Figure, str]]:
    """Returns figures with their captions, by name."""
    groups = self.groups
    drawn = {'curves': (comparison_figures.curves(groups), 'Accuracy by round')}
    if any(run.per_client is not None for g in groups for run in g.finished):
      drawn['clients'] = (
        comparison_figures.per_client(groups),
        'Spread of clients',
      )
    if client_figures.has_gains(groups):
      drawn['gains'] = (
        client_figures.gains(groups),
        'Gains of clients over Local',
      )
    drawn['communication'] = (
      comparison_figures.communication(groups),
      'Accuracy by bytes sent',
    )
    if comparison_figures.has_simulated_time(groups):
      drawn['simulated_time'] = (
        comparison_figures.simulated_time(groups),
        'Accuracy by simulated time',
      )
    if len({group.setting for group in groups}) > 1:
      if self._tested is not None:
        drawn['differences'] = (
          setting_figures.differences(groups, self._tested),
          'Gains by setting',
        )
      if setting_figures.has_both_tests(groups):
        drawn['own_against_all'] = (
          setting_figures.own_against_all(groups, self._means, self.statistic),
          'Own classes and all classes',
        )
    return drawn

  def texts(
    self, title: str, *, target: Optional[float] = None
  ) -> dict[str, str]:
    """Returns `report.md` and its tables as CSV and LaTeX, by file name.

    Args:
      title: Heading of the report.
      target: An accuracy in (0, 1]. The report has the times at which runs
        reach it.
    """
    groups, values, means = self.groups, self._values, self._means
    test_sets = tables.per_test_set(groups, values)
    # LaTeX tables have titles of methods. The other files have names of flags.
    titles = {one.name: names.title(one.name, one.algorithm) for one in groups}

    def titled(table: pandas.DataFrame) -> pandas.DataFrame:
      return table.replace({'name': titles, 'reference': titles})

    setting = documents.setting(groups)
    rows = {
      one.place.row: names.title(one.place.row, one.algorithm) for one in groups
    }
    by_setting = None
    if means['setting'].nunique() > 1:
      pivot_tables = pivots.build(means, self.statistic)
      by_setting = pivots.document(pivot_tables, rows, self.statistic)
      comparison_tex = '\n'.join(
        pivots.to_latex(
          table,
          rows,
          f'{pivots.title(table)}. {setting}',
          f'tab:{table.classifier}',
        )
        for table in pivot_tables
      )
    else:
      narrow = documents.narrow_table(titled(means))
      comparison_tex = rendering.in_table(
        rendering.tabular(narrow, list(narrow)), setting, 'tab:comparison'
      )
    written = {
      'runs.csv': values.to_csv(index=False),
      'comparison.csv': means.to_csv(index=False),
      'comparison.tex': comparison_tex,
    }
    if len(test_sets):
      written['test_sets.csv'] = test_sets.to_csv(index=False)
      written['test_sets.tex'] = documents.to_latex(
        documents.test_set_table(titled(test_sets)), setting, 'tab:test_sets'
      )
    reached = None
    if target is not None:
      times = time_to_accuracy.over_seeds(groups, values, target)
      readable = time_to_accuracy.for_reading(titled(times))
      note = time_to_accuracy.note(target, times)
      reached = f'{documents.to_markdown(readable)}\n\n{note}'
      written['time_to_accuracy.csv'] = times.to_csv(index=False)
      written['time_to_accuracy.tex'] = documents.to_latex(
        readable, note, 'tab:time_to_accuracy'
      )
    further = None
    metrics = tables.further_metrics(groups, values)
    if len(metrics):
      further = documents.to_markdown(documents.metrics_table(metrics))
      written['metrics.csv'] = metrics.to_csv(index=False)
    evenly = None
    clients = fairness.over_runs(groups)
    if len(clients):
      note = fairness.note(clients)
      table = documents.to_markdown(fairness.for_reading(clients))
      evenly = f'{table}\n\n{note}'
      written['fairness.csv'] = clients.to_csv(index=False)
      written['fairness.tex'] = documents.to_latex(
        fairness.for_reading(titled(clients)),
        note.replace('*', ''),
        'tab:fairness',
      )
      tiers, deviations = architectures.by_architecture(groups)
      if len(architectures.names_in(tiers)) > 1:
        table = documents.to_markdown(architectures.to_text(tiers, deviations))
        evenly = f'{evenly}\n\n{table}\n\n{architectures.EXPLANATION}'
        written['architectures.csv'] = tiers.to_csv(index=False)
    differences = None
    if values['name'].nunique() > 1:
      tested = self._tested
      if tested is None:
        others = dict.fromkeys([*values['name'], *values['algorithm']])
        differences = (
          f'Nothing is tested: there is no {DEFAULT_REFERENCE!r} to compare '
          'with. --reference takes another configuration or method: '
          f'{", ".join(others)}.'
        )
      else:
        table = documents.significance_table(tested)
        note = documents.significance_note(
          tested,
          self.reference or DEFAULT_REFERENCE,
          self.statistic,
          self.test,
          num_partitions=values['partition_seed'].nunique(),
        )
        differences = f'{documents.to_markdown(table)}\n\n{note}'
        written['significance.csv'] = tested.to_csv(index=False)
        written['significance.tex'] = documents.to_latex(
          documents.narrow_significance(tested.replace({'row': rows})),
          f'Percent points. {note}'.replace('*', ''),
          'tab:tests',
        )
    written['report.md'] = documents.markdown(
      title,
      setting,
      by_setting,
      means,
      test_sets,
      reached,
      further,
      evenly,
      differences,
      documents.unfinished(groups),
    )
    return written
