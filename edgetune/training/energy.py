"""Energy and CO₂ of a training, as codecarbon measures or estimates them, without any request to a network.

Transformers' CodeCarbonCallback cannot do this: its EmissionsTracker asks a web service where the machine is, writes
emissions.csv beside the run, and has no figures before the end.
"""

from __future__ import annotations

import logging
from typing import Any

MEASURE_EVERY_SECONDS = 5


class EnergyMeter:
    """Energy of the whole machine while the meter runs: CPU, memory and GPUs.

    Power is read from the hardware's counters where the system allows it, and estimated from the load elsewhere. CO₂
    is computed with the world's mean carbon intensity, or with that of the country in CODECARBON_COUNTRY_ISO_CODE.
    https://mlco2.github.io/codecarbon/methodology.html
    """

    def __init__(self, *, energy_kwh: float | None, co2_kg: float | None) -> None:
        """`energy_kwh` and `co2_kg` are the use of the earlier parts of a resumed run, None where there are none."""
        self._kwh_before, self._kg_before = energy_kwh or 0.0, co2_kg or 0.0
        self.energy_kwh, self.co2_kg = energy_kwh, co2_kg
        """Up to the last measurement, in kilowatt-hours and in kilograms of CO₂ equivalents; None before the first."""
        self._tracker: Any = None

    def start(self) -> None:
        """Measure from now on, in a thread of its own."""
        from codecarbon import OfflineEmissionsTracker
        from codecarbon.output_methods.base_output import BaseOutput

        meter = self

        class Reading(BaseOutput):
            def out(self, total: Any, delta: Any) -> None:
                meter.energy_kwh = meter._kwh_before + total.energy_consumed
                meter.co2_kg = meter._kg_before + total.emissions

            live_out = out

        # It warns at every start that other trackers may be running.
        logging.getLogger("codecarbon").setLevel(logging.ERROR)
        self._tracker = OfflineEmissionsTracker(
            measure_power_secs=MEASURE_EVERY_SECONDS,
            api_call_interval=1,
            output_methods=[],
            output_handlers=[Reading()],
            electricitymaps_api_token=None,
            co2_signal_api_token=None,
            log_level="error",
        )
        self._tracker.start()

    def measure(self) -> None:
        if self._tracker is not None:
            self._tracker.flush()

    def stop(self) -> None:
        """Measure a last time and end the thread."""
        if self._tracker is not None:
            self._tracker.stop()
            self._tracker = None
