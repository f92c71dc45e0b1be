//! From the bytes of an image to a component that is a command, a handler of HTTP requests, or both.
//!
//! Checks what can be checked before anything is compiled, and turns WASI 0.1 modules into
//! components, so that there is one path from here on.

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME as PREVIEW1, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER as ADAPTER,
};
use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{ImportSection, Module, RawSection};
use wasmparser::{ComponentTypeRef, Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding};

use super::ImageError;

#[cfg(test)]
mod tests;

/// The interfaces of WASI 0.2 that the linker has, in any patch version.
pub(super) const INTERFACES: &[&str] = &[
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:http/outgoing-handler",
    "wasi:http/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];

/// The interfaces that the linker has beside those, as they are (`wit/`).
pub(super) const OTHER_INTERFACES: &[&str] = &[
    "coracle:config/revisions@0.1.0",
    super::stop::INTERFACE,
    "coracle:queue/work@0.1.0",
    "wasi:config/store@0.2.0-rc.1",
];

/// What a command exports, and what a handler of HTTP requests does.
pub(super) const COMMAND: &str = "wasi:cli/run";
pub(super) const HANDLER: &str = "wasi:http/incoming-handler";

/// Where the exit code of a WASI 0.1 module goes; see [`keep_exit_code`].
const EXIT: &str = "wasi:cli/exit@0.2.12";
const EXIT_WIT: &str = "package wasi:cli@0.2.12;
interface exit { exit: func(status: result); exit-with-code: func(status-code: u8); }
world w { import exit; }";

/// The component to compile: `wasm` itself, or what becomes of a WASI 0.1 module (`None` if the
/// bytes are a component already).
pub(super) fn componentize(wasm: &[u8]) -> Result<Option<Vec<u8>>, ImageError> {
    if Parser::is_component(wasm) {
        check_component(wasm)?;
        return Ok(None);
    }
    if !Parser::is_core_wasm(wasm) {
        return Err(ImageError::Garbage(describe_garbage(wasm)));
    }
    check_module(wasm)?;
    let component = encode(wasm).map_err(|error| ImageError::Garbage(format!("{error:#}")))?;
    check_component(&component)?;
    Ok(Some(component))
}

fn describe_garbage(bytes: &[u8]) -> String {
    let start = bytes.trim_ascii_start();
    if bytes.is_empty() {
        "the file is empty".to_owned()
    } else if start.starts_with(b"(module") || start.starts_with(b"(component") {
        "it is the text format; turn it into a binary with `wasm-tools parse`".to_owned()
    } else {
        "it does not start with the WebAssembly header".to_owned()
    }
}

/// What a binary is, imports and exports on its top level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surface {
    /// Of the component model; a core module otherwise.
    pub is_component: bool,
    /// Interfaces, or `module.name` of a core module; each with whether this host offers it.
    pub imports: Vec<(String, bool)>,
    pub exports: Vec<String>,
}

impl Surface {
    fn missing(&self) -> Vec<String> {
        self.imports.iter().filter(|(_, is_offered)| !is_offered).map(|(name, _)| name.clone()).collect()
    }
}

/// What a program wants of its host and offers it, without compiling it.
pub fn describe(wasm: &[u8]) -> Result<Surface, ImageError> {
    let surface = if Parser::is_component(wasm) {
        component_surface(wasm)
    } else if Parser::is_core_wasm(wasm) {
        module_surface(wasm)
    } else {
        return Err(ImageError::Garbage(describe_garbage(wasm)));
    };
    surface.map_err(|error| ImageError::Garbage(error.to_string()))
}

fn check_component(wasm: &[u8]) -> Result<(), ImageError> {
    let surface = component_surface(wasm).map_err(|error| ImageError::Garbage(error.to_string()))?;
    let missing = surface.missing();
    if !missing.is_empty() {
        return Err(ImageError::MissingImports(missing));
    }
    if !surface.exports.iter().any(|name| is_version_of(name, COMMAND) || is_version_of(name, HANDLER)) {
        let why = format!("it exports neither `{COMMAND}` nor `{HANDLER}`, in a version 0.2");
        return Err(ImageError::NotACommand(why));
    }
    Ok(())
}

fn check_module(wasm: &[u8]) -> Result<(), ImageError> {
    let surface = module_surface(wasm).map_err(|error| ImageError::Garbage(error.to_string()))?;
    let missing = surface.missing();
    if !missing.is_empty() {
        return Err(ImageError::MissingImports(missing));
    }
    for needed in ["_start", "memory"] {
        if !surface.exports.iter().any(|name| name == needed) {
            return Err(ImageError::NotACommand(format!("it exports no `{needed}`")));
        }
    }
    Ok(())
}

fn component_surface(wasm: &[u8]) -> wasmparser::Result<Surface> {
    let mut surface = Surface { is_component: true, ..Surface::default() };
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(imports) if depth == 0 => {
                for import in imports {
                    let import = import?;
                    let name = import.name.name;
                    let offered = matches!(import.ty, ComponentTypeRef::Instance(_))
                        && (INTERFACES.iter().any(|interface| is_version_of(name, interface))
                            || OTHER_INTERFACES.contains(&name));
                    if !matches!(import.ty, ComponentTypeRef::Type(_)) {
                        surface.imports.push((name.to_owned(), offered));
                    }
                }
            }
            Payload::ComponentExportSection(exports) if depth == 0 => {
                for export in exports {
                    surface.exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(surface)
}

fn module_surface(wasm: &[u8]) -> wasmparser::Result<Surface> {
    let mut surface = Surface::default();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import?;
                    // A module may carry the interfaces of a component; those are checked later.
                    let offered = import.module.contains(':')
                        || import.module == PREVIEW1 && adapter_functions()?.contains(&import.name);
                    surface.imports.push((format!("{}.{}", import.module, import.name), offered));
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    surface.exports.push(export?.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(surface)
}

/// The functions of WASI 0.1: what the adapter exports.
fn adapter_functions() -> wasmparser::Result<Vec<&'static str>> {
    let mut names = Vec::new();
    for payload in Parser::new(0).parse_all(ADAPTER) {
        if let Payload::ExportSection(exports) = payload? {
            for export in exports {
                names.push(export?.name);
            }
        }
    }
    Ok(names)
}

/// Whether `name` is `interface@0.2.N`.
pub(super) fn is_version_of(name: &str, interface: &str) -> bool {
    name.strip_prefix(interface)
        .and_then(|rest| rest.strip_prefix("@0.2."))
        .is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit()))
}

fn encode(module: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let module = keep_exit_code(module)?;
    let mut encoder = ComponentEncoder::default().module(&module)?.adapter(PREVIEW1, ADAPTER)?;
    Ok(encoder.encode()?)
}

/// Lets a WASI 0.1 module end with its own exit code.
///
/// The stock adapter calls WASI 0.2's `exit`, which knows only success and failure. `proc_exit` has
/// the same core signature as `exit-with-code`, so the import is renamed to that, past the adapter.
fn keep_exit_code(module: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut renamed = Module::new();
    let mut found = false;
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload?;
        if let Payload::ImportSection(imports) = payload {
            let mut section = ImportSection::new();
            for import in imports.into_imports() {
                let import = import?;
                let ty = RoundtripReencoder.entity_type(import.ty)?;
                if (import.module, import.name) == (PREVIEW1, "proc_exit") {
                    found = true;
                    section.import(EXIT, "exit-with-code", ty);
                } else {
                    section.import(import.module, import.name, ty);
                }
            }
            renamed.section(&section);
        } else if let Some((id, range)) = payload.as_section() {
            renamed.section(&RawSection { id, data: &module[range] });
        }
    }
    if !found {
        return Ok(module.to_vec());
    }
    let mut renamed = renamed.finish();
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve.push_str("exit.wit", EXIT_WIT)?;
    let world = resolve.select_world(&[package], Some("w"))?;
    wit_component::embed_component_metadata(&mut renamed, &resolve, world, StringEncoding::UTF8)?;
    Ok(renamed)
}
