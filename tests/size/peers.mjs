// node peers.mjs MICROPYTHON.MJS FIRMWARE SCRIPT PEERS...: runs SCRIPT in MicroPython's WebAssembly
// port, whose objects have 32 bits as a microcontroller's, on a copy of wire and core.
import fs from "node:fs";
import path from "node:path";
import url from "node:url";

const [library, firmware, script, ...peers] = process.argv.slice(2);
const { loadMicroPython } = await import(url.pathToFileURL(path.resolve(library)));
const micropython = await loadMicroPython({ heapsize: 16 * 1024 * 1024, stdout: (line) => console.log(line) });

function copy(from, to) {
    micropython.FS.mkdir(to);
    for (const entry of fs.readdirSync(from, { withFileTypes: true })) {
        const source = path.join(from, entry.name);
        if (entry.isDirectory()) {
            if (entry.name !== "__pycache__") copy(source, `${to}/${entry.name}`);
        } else if (entry.name.endsWith(".py") || entry.name.endsWith(".mpy")) {
            micropython.FS.writeFile(`${to}/${entry.name}`, fs.readFileSync(source));
        }
    }
}

micropython.FS.mkdir("/firmware");
micropython.FS.mkdir("/firmware/haaro");
for (const name of fs.readdirSync(path.join(firmware, "haaro"))) {
    if (/\.m?py$/.test(name)) micropython.FS.writeFile(`/firmware/haaro/${name}`, fs.readFileSync(path.join(firmware, "haaro", name)));
}
for (const part of ["wire", "core"]) copy(path.join(firmware, "haaro", part), `/firmware/haaro/${part}`);
// The WebAssembly port collects between calls only, so each step of the script is a call.
const argv = (words) => `_ARGV = ${JSON.stringify([script, "/firmware", ...words])}\n`;
const program = fs.readFileSync(script, "utf8").replaceAll("sys.argv", "_ARGV");
const [before, first, second] = program.split(/# --- imports (?:begin|end) here\n/);
const collect = () => micropython.runPython("import gc\ngc.collect()");
micropython.runPython(argv([]) + before);
for (const part of [first, second.split("\n", 1)[0]]) {
    collect();
    micropython.runPython(part);
}
micropython.runPython(second);
micropython.runPython(argv(peers));
do {
    collect();
    micropython.runPython("_at = next(STEPS, 'end')");
} while (micropython.globals.get("_at") !== "end");
