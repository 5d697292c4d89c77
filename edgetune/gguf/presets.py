"""The quantization presets by name. llama.cpp decides the type of each tensor."""

from __future__ import annotations

from dataclasses import dataclass

from edgetune.errors import UsageError
from edgetune.recipe.yaml_input import nearest


@dataclass(frozen=True)
class Preset:
    """`file_type` is llama.cpp's number (enum llama_ftype); a `plain` preset stores every matrix in one float type."""

    name: str
    file_type: int
    plain: bool = False


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("f32", 0, plain=True),
        Preset("f16", 1, plain=True),
        Preset("bf16", 32, plain=True),
        Preset("q8_0", 7),
        Preset("q6_k", 18),
        Preset("q5_k_m", 17),
        Preset("q5_k_s", 16),
        Preset("q5_1", 9),
        Preset("q5_0", 8),
        Preset("q4_k_m", 15),
        Preset("q4_k_s", 14),
        Preset("q4_1", 3),
        Preset("q4_0", 2),
        Preset("iq4_nl", 25),
        Preset("iq4_xs", 30),
        Preset("q3_k_l", 13),
        Preset("q3_k_m", 12),
        Preset("q3_k_s", 11),
        Preset("q2_k", 10),
    )
}
DEFAULT_PRESET = "q4_k_m"


def find_preset(name: str) -> Preset:
    """The preset of this name, in any case. Raises UsageError naming the nearest."""
    preset = PRESETS.get(name.lower())
    if preset is None:
        raise UsageError(
            f"unknown preset{nearest(name.lower(), PRESETS)}",
            where=f"--quant {name}",
            remedy=f"the presets are {', '.join(PRESETS)}",
        )
    return preset
