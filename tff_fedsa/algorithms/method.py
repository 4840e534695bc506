"""The description of a method: name, hyper-parameters, measurements."""

from collections.abc import Callable, Mapping
import dataclasses
import inspect
from typing import Any, Optional

from tff_fedsa import settings


@dataclasses.dataclass(frozen=True)
class Method:
  """A method.

  Flags, columns of metrics.csv, tags of TensorBoard, documents and reports
  follow from this description.

  Attributes:
    name: Name on the command line.
    title: Name in papers.
    config: Class of its hyper-parameters.
    build_fn: `fn(models, config, *, input_spec, …)` returns its process.
    terms: Terms of the clients' objective besides the cross-entropy: name ->
      meaning and unit. The column of a term is `loss_<name>`.
    metrics: Further columns: name -> meaning and unit.
    averages: Values that the server averages over clients: `prototypes` or
      `logits` (by class, see `prototypes.ClassMeanConfig`), `weights` (of the
      whole model, with which clients begin the next round), or None for
      anything else.
    broadcasts_anchors: Whether clients receive anchors, and nothing else.
    sees_clients: Why the server needs what each client sends, as a sentence;
      empty if means and sums are all that it needs.
    collects_prototypes: Whether this is one table of prototypes per client.
  """

  name: str
  title: str
  config: type[settings.Settings]
  build_fn: Callable[..., Any]
  terms: Mapping[str, str] = dataclasses.field(default_factory=dict)
  metrics: Mapping[str, str] = dataclasses.field(default_factory=dict)
  averages: Optional[str] = None
  broadcasts_anchors: bool = False
  sees_clients: str = ''
  collects_prototypes: bool = False

  @property
  def averages_classes(self) -> bool:
    """True if the server averages something by class."""
    return self.averages in ('prototypes', 'logits')

  @property
  def takes_aggregator(self) -> bool:
    """True if its builder takes an `aggregator_factory`."""
    return 'aggregator_factory' in inspect.signature(self.build_fn).parameters

  @property
  def averages_weights(self) -> bool:
    """True if clients begin a round with averaged weights."""
    return self.averages == 'weights'
