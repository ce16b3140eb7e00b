//! The commented example configuration is valid, and so says the generated schema.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};

use crate::harness::{Scene, accepts, gateway, promise};

#[test]
fn the_example_passes_the_check() {
    promise(|_scene| {
        let file = example().display().to_string();
        let output = gateway::run(&["check", "--file-only", "--config", &file])?;
        ensure!(output.status.code() == Some(0), "{output:?}");
        Ok(())
    });
}

#[test]
fn the_schema_accepts_the_example_and_refuses_a_misspelt_key() {
    promise(|scene| {
        let schema = schema(scene)?;
        let objections = accepts(&schema, &example())?;
        ensure!(objections.is_none(), "{objections:?}");
        let text = fs::read_to_string(example())?;
        let misspelt = scene.write("misspelt.toml", &format!("{text}\n[gatewey]\nid = \"x\"\n"))?;
        let objections = accepts(&schema, &misspelt)?;
        ensure!(
            objections.is_some_and(|text| text.contains("gatewey")),
            "a misspelt key passed"
        );
        Ok(())
    });
}

fn schema(scene: &Scene) -> Result<PathBuf> {
    let output = gateway::run(&["schema"])?;
    ensure!(output.status.success(), "{output:?}");
    scene.write("schema.json", &String::from_utf8(output.stdout)?)
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/gateway.example.toml")
}
