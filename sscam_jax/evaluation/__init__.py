"""Methods measured on data sets: `study.evaluate` runs them, `folder` keeps what was found, `tables` shows it."""
