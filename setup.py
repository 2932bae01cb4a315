"""Name the packages: everything below amortnlme/, and the two folders that pyproject.toml maps into it."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["amortnlme", "amortnlme.*"]),
        "amortnlme.simulators",
        "amortnlme.trained_models",
    ]
)
