// A session by VS Code's own client for tests of debug adapters: session.js CLIENT PROGRAM ARGUMENTS prints all messages
// as lines of JSON. ARGUMENTS are those of the launch; `line` and `source` name a line to stop at before.
"use strict";
const [client, program, given] = process.argv.slice(2);
const { DebugClient } = require(client);
const { source, line, ...launch } = JSON.parse(given);

function note(message) {
  process.stdout.write(JSON.stringify(message) + "\n");
}

async function session() {
  const dc = new DebugClient(program, "dap", "trapline", undefined, true);
  dc.defaultTimeout = 100000;
  await dc.start();
  const { dispatch } = dc;
  dc.dispatch = function (body) {
    note(JSON.parse(body));
    return dispatch.call(this, body);
  };
  const write = dc.outputStream.write.bind(dc.outputStream);
  dc.outputStream.write = (text, ...others) => {
    note(JSON.parse(text.slice(text.indexOf("\r\n\r\n"))));
    return write(text, ...others);
  };
  const thread = { threadId: 1 };
  const going = (request) => Promise.all([dc.waitForEvent("stopped"), request]).then(([event]) => event.body);

  if (line === undefined) {
    const configured = dc.waitForEvent("initialized").then(async () => {
      await dc.setExceptionBreakpointsRequest({ filters: ["df", "shutdown", "pf"] });
      await dc.configurationDoneRequest();
    });
    await Promise.all([configured, going(dc.launch(launch))]);
  } else {
    await dc.hitBreakpoint(launch, { path: source, line });
  }
  await dc.threadsRequest();
  await going(dc.continueRequest(thread));
  await dc.exceptionInfoRequest(thread);
  const trace = await dc.stackTraceRequest(thread);
  const scopes = await dc.scopesRequest({ frameId: trace.body.stackFrames[0].id });
  for (const { variablesReference } of scopes.body.scopes) {
    await dc.variablesRequest({ variablesReference });
  }
  await dc.evaluateRequest({ expression: "why", context: "repl" });
  await going(dc.stepInRequest(thread));
  await going(dc.nextRequest(thread));
  await dc.stackTraceRequest(thread);
  await dc.setExceptionBreakpointsRequest({ filters: [] });
  await Promise.all([dc.waitForEvent("exited"), dc.waitForEvent("terminated"), dc.continueRequest(thread)]);
  await dc.stop();
}

session().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
