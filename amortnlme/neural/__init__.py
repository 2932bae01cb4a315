"""Floor 4: networks, training, calibration and estimator artefacts; the only floor with Keras."""
