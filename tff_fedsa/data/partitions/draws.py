"""Repeated draws, until each client has enough examples."""

from tff_fedsa.runs import errors

# Largest number of draws before a partition is refused.
MAX_DRAWS = 10_000


def check_possible(
  num_examples: int, num_clients: int, least_samples: int
) -> None:
  """Refuses impossible requirements before the first draw.

  Raises:
    ValueError: If there are fewer examples than the clients need.
  """
  needed = num_clients * max(least_samples, 1)
  if needed > num_examples:
    raise errors.UserError(
      f'{num_clients} clients of at least {max(least_samples, 1)} examples '
      f'(least_samples) need {needed}, but there are {num_examples}. Use fewer '
      'clients or a smaller least_samples.'
    )
