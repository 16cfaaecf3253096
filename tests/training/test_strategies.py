"""What a sharding strategy refuses, before anything is moved or trained. What it does is in test_distributed.py."""

from types import SimpleNamespace

import pytest
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy, StrategyRegistry

from fluxsr.training import FSDP2Strategy
from fluxsr.training.checks import check_strategy
from tests.training.conftest import tiny_module

pytestmark = pytest.mark.torch("2.11")


@pytest.mark.parametrize("make", [FSDP2Strategy, ModelParallelStrategy, FSDPStrategy], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_quantized_weights_are_refused(make, kind):
    module, strategy = tiny_module(losses={}), make()
    module.backbone.quantization = kind
    with pytest.raises(
        ValueError, match=f"{type(strategy).__name__} can't shard {kind} weights.*train with strategy ddp"
    ):
        check_strategy(strategy, module)
    check_strategy(DDPStrategy(), module)


def test_the_older_strategies_name_the_one_that_works():
    module = tiny_module(losses={})
    check_strategy(FSDP2Strategy(), module)
    with pytest.raises(ValueError, match=r"one tensor of one dtype.*set strategy to fsdp2"):
        check_strategy(FSDPStrategy(), module)
    with pytest.raises(ValueError, match=r"don't load elsewhere: set strategy to fsdp2"):
        check_strategy(ModelParallelStrategy(), module)


def test_the_module_asks_before_it_is_configured():
    module = tiny_module(losses={})
    module._trainer = SimpleNamespace(strategy=FSDPStrategy())
    with pytest.raises(ValueError, match="set strategy to fsdp2"):
        module.configure_model()


def test_it_has_a_name():
    assert isinstance(StrategyRegistry.get("fsdp2"), FSDP2Strategy)
