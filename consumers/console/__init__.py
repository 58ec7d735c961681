"""The web console: fleet, models, alerts, pipeline and single events, in a browser.

`reader` follows the topics outside any group, `history` keeps a bounded past in SQL, `board`
the present in memory; `views` and `charts` turn both into what is shown; `routes` serves it,
`guard` and `access` decide to whom. The pages are in `static/`: no build step, nothing fetched.
"""
