"""Names of weights as files know them."""

import pytest

from fluxsr.models.weight_names import public_name


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("backbone._orig_mod.transformer.x.weight", "backbone.transformer.x.weight"),
        ("a._checkpoint_wrapped_module._orig_mod.b", "a.b"),
        ("_orig_mod.b", "b"),
        ("a.module.b", "a.module.b"),
    ],
)
def test_public_names(name, public):
    assert public_name(name) == public
