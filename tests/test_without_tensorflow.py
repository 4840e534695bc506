"""Settings, names and help are there without TensorFlow: it takes seconds."""

import subprocess
import sys
import textwrap

_PROGRAM = textwrap.dedent("""
  import sys
  from tff_fedsa import experiment
  from tff_fedsa import settings
  from tff_fedsa.models import families
  from tff_fedsa.algorithms import registry
  classes = experiment.setting_classes()
  assert len(classes) > len(registry.NAMES)
  for cls in classes:
    settings.fields_of(cls)
    cls()
  assert families.members('HtM10')
  try:
    from launch import train
    from launch import runner
    sys.argv = ['launch.train', '--help']
    runner.run(train.main)
  except SystemExit:
    pass
  found = {'tensorflow', 'tensorflow_federated', 'sklearn'} & set(sys.modules)
  sys.exit(f'imported: {found}' if found else 0)
""")


def test_nothing_imports_it():
  program = subprocess.run(
    [sys.executable, '-c', _PROGRAM], capture_output=True, text=True
  )
  assert program.returncode == 0, program.stderr
  assert '--client_learning_rate' in program.stdout
