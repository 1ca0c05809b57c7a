"""Measurements of NPS Store on real models; not part of the wheel."""
