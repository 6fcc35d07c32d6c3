// SPDX-License-Identifier: Apache-2.0
// Types of addon.mjs and addon.cjs.

/** Folder of package.json. */
export declare const packageRoot: string
/** Loads maestrale.node: a local build first, else the prebuilt binary. Throws when neither loads. */
export declare const loadAddon: () => unknown
