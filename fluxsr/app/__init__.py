"""Makes the page that `fluxsr app` serves. It needs the extra app."""
