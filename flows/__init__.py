"""ORDER: what happens when, no arithmetic. The same operations serve the command line and Prefect.

Operations (`observe`, `probe`, `fit`, `search`, `decide`, `publish`) are plain functions that read and write; `night`
puts them in order as steps; a `Perform` carries the steps out, in this process or as Prefect tasks. So a dry run, a
test and the scheduled night run the same code. Prefect is imported only by the flows themselves (`nightly`, `replan`,
`tasks`, `artifacts`) and orchestrates and shows; what must not be lost lies in the catalog and in the plans.
"""
