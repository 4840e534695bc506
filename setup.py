"""What setup.cfg can not say: launchers and presets go into the package.

As installed packages of their own, the names `launch` and `flags` would be too
general. The command `tff-fedsa` makes them importable (tff_fedsa/cli.py).
"""

import setuptools

_BUNDLED = ('launch', 'flags')

setuptools.setup(
  packages=[
    *setuptools.find_packages(include=['tff_fedsa', 'tff_fedsa.*']),
    *(
      f'tff_fedsa.bundled.{package}'
      for name in _BUNDLED
      for package in setuptools.find_packages(include=[name, f'{name}.*'])
    ),
  ],
  package_dir={f'tff_fedsa.bundled.{name}': name for name in _BUNDLED},
  package_data={
    'tff_fedsa': ['py.typed'],
    'tff_fedsa.bundled.flags': ['*.flags', '*/*.flags', 'sweeps/*.toml'],
  },
)
