"""Local stand-ins of the providers, over one synthetic fleet."""

from connectors.simulators.server import Simulators, SimulatorSettings, run

__all__ = ["SimulatorSettings", "Simulators", "run"]
