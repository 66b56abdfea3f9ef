// Who follows. Each route is a bundle of its own: what they share is the process.

export const readers = (globalThis.perennialReaders ??= new Set());
