"""Names of configurations: method, setting, title in papers."""

from typing import Optional

from tff_fedsa.algorithms import registry


def setting(name: str, algorithm: str) -> Optional[tuple[str, ...]]:
  """Returns the parts of a configuration's name, without the method.

  A sweep joins parts with commas: `fedsa,feature_dim=8` is FedSA in the setting
  `('feature_dim=8',)`, and `fedsa` is FedSA in `()`.

  Args:
    name: Name of the configuration.
    algorithm: Name of its method.

  Returns:
    The parts, or None if the name does not contain the method.
  """
  parts = name.split(',')
  if algorithm not in parts:
    return None
  parts.remove(algorithm)
  return tuple(parts)


def title(name: str, algorithm: str) -> str:
  """Returns a configuration's name with the method's title in papers.

  Args:
    name: Name of the configuration.
    algorithm: Name of its method.
  """
  if algorithm not in registry.NAMES:
    return name
  parts = name.split(',')
  known = registry.get(algorithm).title
  return ', '.join(known if part == algorithm else part for part in parts)
