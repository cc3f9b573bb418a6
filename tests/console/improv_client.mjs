// The published Improv client on a port that is this process's standard input and output:
//   node improv_client.mjs FOLDER-OF-THE-PACKAGE SSID PASSWORD MILLISECONDS-TO-BE-FOUND
// Writes what it found as one line of JSON to standard error.
import { register } from "node:module";
import { Readable } from "node:stream";
import { pathToFileURL } from "node:url";

// The package is written for bundlers, which find ./x.js by ./x.
const hooks = `export async function resolve(name, context, next) {
  try { return await next(name, context); } catch (error) {
    if (name.startsWith(".")) return next(name + ".js", context);
    throw error;
  }
}`;
register("data:text/javascript," + encodeURIComponent(hooks));
globalThis.CustomEvent ??= class extends Event {
  constructor(type, options) {
    super(type);
    this.detail = options?.detail;
  }
};

const [folder, ssid, password, patience] = process.argv.slice(2);
const { ImprovSerial } = await import(pathToFileURL(folder + "/dist/serial.js"));
const quiet = { log() {}, error() {}, debug() {} };
const port = {
  readable: Readable.toWeb(process.stdin),
  writable: new WritableStream({ write: (data) => void process.stdout.write(data) }),
};
const found = {};
// A command that is refused before the client waits for its answer.
process.on("unhandledRejection", (error) => void (found.failure ??= String(error)));
const improv = new ImprovSerial(port, quiet);
const states = [];
improv.addEventListener("state-changed", (event) => states.push(event.detail));
try {
  found.info = await improv.initialize(Number(patience));
  found.networks = await improv.scan(20000);
  await improv.provision(ssid, password, 20000);
  found.provisioned = true;
} catch (error) {
  found.failure = String(error);
}
found.states = states;
found.error = improv.error;
process.stderr.write(JSON.stringify(found) + "\n", () => process.exit(0));
