"""Collects every client's message, client by client."""

import numpy as np
import pytest

from tff_fedsa.aggregation import collecting
from tff_fedsa.maths import prototypes

pytestmark = pytest.mark.usefixtures('in_process_context')

_TYPE = prototypes.prototypes_type(3, 2)


def test_type():
  process = collecting.CollectingFactory().create(_TYPE)
  one = '{<vectors=float32[3,2],weights=float32[3]>}@CLIENTS'
  all_clients = '<vectors=float32[?,3,2],weights=float32[?,3]>@SERVER'
  assert process.next.type_signature.compact_representation() == (
    f'(<state=<>@SERVER,value={one}> -> <state=<>@SERVER,'
    f'result={all_clients},measurements=<>@SERVER>)'
  )


@pytest.mark.parametrize('num_clients', [1, 7, 150])
def test_values_arrive_in_the_order_of_clients(num_clients):
  values = [
    prototypes.ClassPrototypes(
      np.full([3, 2], i, np.float32), np.full([3], 10 * i, np.float32)
    )
    for i in range(num_clients)
  ]
  process = collecting.CollectingFactory().create(_TYPE)
  result = process.next(process.initialize(), values).result
  assert isinstance(result, prototypes.ClassPrototypes)
  for name in ('vectors', 'weights'):
    np.testing.assert_array_equal(
      getattr(result, name), [getattr(value, name) for value in values]
    )
