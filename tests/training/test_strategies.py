"""What a sharding strategy refuses, before anything is moved or trained. What it does is in test_distributed.py."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy, StrategyRegistry

from fluxsr.training import FSDP2Strategy
from fluxsr.training.strategies import check_strategy
from tests.training.conftest import tiny_module

pytestmark = pytest.mark.torch("2.11")


@pytest.mark.parametrize(
    ("strategy", "quantization", "said"),
    [
        (FSDP2Strategy, None, None),
        (DDPStrategy, "int8", None),
        *((kind, "nf4", "train with strategy ddp") for kind in (FSDP2Strategy, ModelParallelStrategy, FSDPStrategy)),
        (FSDPStrategy, None, "set strategy to fsdp2"),
        (ModelParallelStrategy, None, "set strategy to fsdp2"),
    ],
)
def test_what_would_train_wrongly_is_refused(strategy, quantization, said):
    with nullcontext() if said is None else pytest.raises(ValueError, match=said):
        check_strategy(strategy(), quantization)


def test_the_module_asks_before_it_is_configured():
    module = tiny_module(losses={})
    module._trainer = SimpleNamespace(strategy=FSDPStrategy())
    with pytest.raises(ValueError, match="set strategy to fsdp2"):
        module.configure_model()


def test_it_has_a_name():
    assert isinstance(StrategyRegistry.get("fsdp2"), FSDP2Strategy)
