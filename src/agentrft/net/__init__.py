"""The way to services that users name: which addresses may be asked, one bounded request, when to leave one alone.

`policy` decides, `resolve` and `guard` hold every connection to it, `exchange` sends one request over `connections`
that are kept, `breaker` counts what fails, `secrets` keeps header values out of what is shown, `wire` writes rows and
messages as OpenAI does.
"""
