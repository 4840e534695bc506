"""The report as one HTML file, opened in a headless browser where one is."""

import pytest

from tests.reporting import browser
from tests.reporting import made_up
from tff_fedsa.reporting import comparison
from tff_fedsa.reporting import figures
from tff_fedsa.reporting import groups as groups_lib
from tff_fedsa.reporting import html_report
from tff_fedsa.reporting import runs

pytestmark = pytest.mark.skipif(browser.find() is None, reason='no browser')

_DESKTOP, _PHONE = 1280, 390


def _sweep(root):
  """Writes runs of three methods in two settings, two seeds each."""
  for alpha, down in (('0.1', 0.0), ('0.5', 0.1)):
    for method, last in (('fedsa', 0.9), ('fedproto', 0.8), ('local', 0.85)):
      made_up.write_repeats(
        root,
        f'{method},alpha={alpha}',
        [last - down, last - down - 0.02],
        algorithm=method,
        alpha=alpha,
        partition=(int(10 * down),),
        classifiers=('head',) if method == 'local' else ('prototype', 'head'),
      )


def _run(root):
  """Writes one run."""
  made_up.write(root / 'fedsa', [0.1, 0.5, 0.7, 0.9])


@pytest.mark.parametrize(
  'write', [pytest.param(_sweep, marks=pytest.mark.slow), _run]
)
def test_a_report_is_whole_in_a_browser(tmp_path, write):
  write(tmp_path / 'runs')
  found = runs.find([str(tmp_path / 'runs')], made_up.DEFAULTS)
  groups = groups_lib.group(found, measurement=['alpha'])
  compared = comparison.Comparison(groups)
  texts = compared.texts('a title')
  pictures = {
    f'{name}.png': (figures.encode(figure, 'png'), caption)
    for name, (figure, caption) in compared.figures().items()
  }
  assert pictures
  page = tmp_path / 'report.html'
  page.write_text(
    html_report.render('a title', texts['report.md'], pictures), 'utf-8'
  )
  with browser.opened(tmp_path / 'profile') as opened:
    for width in (_DESKTOP, _PHONE):
      seen = opened.open(page, width)
      assert seen['headings'][0]
      assert len(seen['images']) == len(pictures)
      assert all(done and size > 0 for done, size in seen['images'])
      assert seen['tables'] and min(seen['tables']) > 1
      # Wide tables and figures scroll within themselves.
      assert seen['overflow'] <= 0
      assert 300 < max(seen['shown']) <= max(width, 640)
    assert not opened.complaints


def test_what_is_wrong_with_a_page_is_seen(tmp_path):
  page = tmp_path / 'page.html'
  page.write_text(
    '<h1>x</h1><img src="nothing.png"><table><tr><td>x</td></tr></table>'
    '<div style="width: 5000px">x</div><script>undefined.x()</script>'
  )
  with browser.opened(tmp_path / 'profile') as opened:
    seen = opened.open(page, _DESKTOP)
  assert seen['images'] == [[True, 0]] and seen['tables'] == [1]
  assert seen['overflow'] > 3000
  kinds = {kind for complaint in opened.complaints for kind in complaint}
  assert {'exceptionDetails', 'errorText'} <= kinds
