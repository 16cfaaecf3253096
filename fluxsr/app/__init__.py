"""The page that `fluxsr app` serves. Needs the extra app."""
