"""What an independent parser makes of the OpenMetrics text at a URL: one JSON object per sample.

Ends with 2 and the reason where the page cannot be had or the parser refuses it.
"""

import json
import sys
import urllib.request

from prometheus_client.openmetrics.parser import text_string_to_metric_families

MEDIA_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def main():
    with urllib.request.urlopen(sys.argv[1], timeout=10) as page:
        if page.headers["Content-Type"] != MEDIA_TYPE:
            raise ValueError(f"the page is {page.headers['Content-Type']}")
        text = page.read().decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            fields = {"name": sample.name, "labels": sample.labels, "value": sample.value}
            print(json.dumps({**fields, "type": family.type, "help": family.documentation}))


try:
    main()
except Exception as error:  # whatever keeps us from a verdict
    print(error, file=sys.stderr)
    sys.exit(2)
