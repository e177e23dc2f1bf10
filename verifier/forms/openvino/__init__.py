"""OpenVINO models as OpenVINO runs them on the CPU."""
