"""Whether a list of components is valid by CycloneDX' own library: ends with 0, or with 1 and what is wrong."""

import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

with open(sys.argv[1], encoding="utf-8") as file:
    wrong = JsonStrictValidator(SchemaVersion.V1_5).validate_str(file.read())
sys.exit(str(wrong) if wrong else 0)
