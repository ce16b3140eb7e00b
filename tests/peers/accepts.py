"""Whether a JSON Schema accepts a TOML file: ends with 0 and nothing, or with 1 and each objection."""

import json
import sys
import tomllib

import jsonschema


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        schema = json.load(file)
    with open(sys.argv[2], "rb") as file:
        document = tomllib.load(file)
    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)
    objections = list(kind(schema).iter_errors(document))
    for objection in objections:
        print(f"{objection.json_path}: {objection.message}")
    sys.exit(1 if objections else 0)


try:
    main()
except Exception as error:  # any verdict but yes and no
    print(error, file=sys.stderr)
    sys.exit(2)
