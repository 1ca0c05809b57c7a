"""Whether this machine and this installation are fit for the work: what `nps doctor` tells."""

from nps_store.diagnosis.finding import Finding, Severity
from nps_store.diagnosis.machine import look_at_machine
from nps_store.diagnosis.packages import look_at_packages

__all__ = ["Finding", "Severity", "look_at_machine", "look_at_packages"]
