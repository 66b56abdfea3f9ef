// node upload.mjs <endpoint> <file> <options as JSON>: upload the file with tus-js-client, and print what came of it.
//
// Prints one line of JSON: {"url", "attempts", "location"} or {"error"}. `url` in the options resumes that upload.

import { readFileSync } from "node:fs";
import { Upload } from "tus-js-client";

const [endpoint, path, json] = process.argv.slice(2);

let attempts = 0;
const upload = new Upload(readFileSync(path), {
  endpoint,
  retryDelays: Array(50).fill(20),
  ...JSON.parse(json),
  onBeforeRequest: () => void attempts++,
  onError: (error) => print({ error: String(error) }),
  onSuccess: ({ lastResponse } = {}) =>
    print({ url: upload.url, attempts, location: lastResponse?.getHeader("Content-Location") }),
});

function print(result) {
  console.log(JSON.stringify(result));
  process.exit(0);
}

upload.start();
