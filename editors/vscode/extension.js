// Starts `trapline dap` for a session. No build step: VS Code runs this file as it is.
"use strict";
const vscode = require("vscode");

function activate(context) {
  context.subscriptions.push(
    vscode.debug.registerDebugConfigurationProvider("trapline", {
      resolveDebugConfiguration(folder, configuration) {
        if (!configuration.cwd && folder) {
          configuration.cwd = folder.uri.fsPath;
        }
        return configuration;
      },
    }),
    vscode.debug.registerDebugAdapterDescriptorFactory("trapline", {
      createDebugAdapterDescriptor() {
        const program = vscode.workspace.getConfiguration("trapline").get("program") || "trapline";
        return new vscode.DebugAdapterExecutable(program, ["dap"]);
      },
    }),
  );
}

module.exports = { activate };
