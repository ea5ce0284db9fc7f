"""The app as a Hugging Face Space, which runs this file."""

from sscam_jax.report import app

app.launch(app.build(), host="0.0.0.0", port=7860)
