// rot13: copies standard input to standard output, each ASCII letter turned by 13 places.
//
// It calls WASI itself: AssemblyScript's library has no standard input of its own.

@external("wasi_snapshot_preview1", "fd_read")
declare function fd_read(fd: u32, iovs: usize, count: u32, read: usize): u32;

@external("wasi_snapshot_preview1", "fd_write")
declare function fd_write(fd: u32, iovs: usize, count: u32, written: usize): u32;

@external("wasi_snapshot_preview1", "proc_exit")
declare function proc_exit(status: u32): void;

const SIZE: u32 = 65536;

// What the compiler would import for errors, which no host of WASI has.
export function wasi_abort(message: string | null, file: string | null, line: u32, column: u32): void {
  proc_exit(255);
}

function turn(byte: u8): u8 {
  const letter: u8 = byte | 0x20;
  if (letter < 0x61 || letter > 0x7a) return byte;
  return letter < 0x6e ? byte + 13 : byte - 13;
}

export function _start(): void {
  const buffer = heap.alloc(SIZE);
  const iov = heap.alloc(8); // address and length
  const count = heap.alloc(4);
  for (;;) {
    store<u32>(iov, <u32>buffer);
    store<u32>(iov, SIZE, 4);
    if (fd_read(0, iov, 1, count) != 0) proc_exit(1);
    const read = load<u32>(count);
    if (read == 0) return;
    for (let i: u32 = 0; i < read; i++) store<u8>(buffer + i, turn(load<u8>(buffer + i)));
    for (let done: u32 = 0; done < read; done += load<u32>(count)) {
      store<u32>(iov, <u32>buffer + done);
      store<u32>(iov, read - done, 4);
      if (fd_write(1, iov, 1, count) != 0) proc_exit(1);
    }
  }
}
