// flagd's own evaluation, in process: reads {document, flag, contexts} on stdin, writes what the flag says to each.
//
//   node flagd.mjs FOLDER < question.json
//
// The document is validated against flagd's JSON schema first; one that does not fit is an error.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(`${process.argv[2]}/`);
const { FlagdCore } = require("@openfeature/flagd-core");
const quiet = { error() {}, warn() {}, info() {}, debug() {} };
const { document, flag, contexts } = JSON.parse(readFileSync(0, "utf8"));

const core = new FlagdCore(undefined, quiet, { strictValidation: true });
core.setConfigurations(JSON.stringify(document));
const answers = contexts.map((context) => {
  const { value, reason } = core.resolveBooleanEvaluation(flag, null, context, quiet);
  return { value, reason };
});
console.log(JSON.stringify(answers));
