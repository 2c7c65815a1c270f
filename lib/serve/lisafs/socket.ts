// BindAt, Connect, Listen, Accept: Unix sockets of the host, where the tree has them and its policy lets them be. Refused they are
// EPERM, by which a sandbox binds a socket of its own. lisafs-wire section 4.3. Data plane.

import { Errno } from "../../base/errno.ts";
import { checkName, type Name } from "../../base/name.ts";
import { CreateRequest, hasSockets, type Ino, OpenResult } from "../../tree/tree.ts";
import { putInode } from "../../wire/lisafs/statx.ts";
import { FdKind } from "./fd-table.ts";
import { attr, type Handler, preparedMode } from "./handler.ts";

const created = new CreateRequest();
const bound = new OpenResult();

/** A read-only mount says EROFS first. */
export const bindAt: Handler = (connection, request, reply, from) => {
  const { tree, fds } = connection;
  if (connection.isReadOnly) return -Errno.EROFS;
  const directory = fds.control(request.fd);
  if (directory < 0) return directory;
  const bad = checkName(request.name);
  if (bad < 0) return bad;
  if (!hasSockets(tree)) return -Errno.EPERM;
  const room = fds.roomForControl() || fds.roomFor(FdKind.socket);
  if (room < 0) return room;
  const mode = preparedMode(tree, directory as Ino, request.mode & 0o7777);
  if (mode < 0) return mode;
  created.mode = mode;
  created.uid = request.uid;
  created.gid = request.gid;
  const ino = tree.bind(directory as Ino, request.name as Name, request.sockType, created, bound);
  if (ino < 0) return ino;
  const socketFdid = fds.mintOpen(FdKind.socket, ino as Ino, bound.handle, 0);
  const failed = tree.getattr(ino as Ino, attr);
  if (failed < 0) tree.release(ino as Ino);
  const fdid = failed < 0 ? failed : fds.mintControl(ino as Ino);
  if (fdid < 0) {
    fds.close(socketFdid);
    return fdid;
  }
  putInode(reply, fdid, attr);
  reply.putU64(socketFdid);
  from.donate(bound.hostFd, false);
  return 0;
};

export const connect: Handler = (connection, request, _reply, from) => {
  const { tree, fds } = connection;
  const ino = fds.liveControl(request.fd);
  if (ino < 0) return ino;
  if (!hasSockets(tree)) return -Errno.EPERM;
  const fd = tree.connect(ino as Ino, request.sockType);
  if (fd < 0) return fd;
  from.donate(fd, true);
  return 0;
};

export const listen: Handler = (connection, request) => {
  const { tree, fds } = connection;
  const fd = fds.socket(request.fd);
  if (fd === undefined || !hasSockets(tree)) return fds.errnoOfOpen(request.fd);
  return tree.listenOn(fd.handle, request.count);
};

/** The peer's address is left empty, as by fsgofer: its path is the host's. */
export const accept: Handler = (connection, request, reply, from) => {
  const { tree, fds } = connection;
  const fd = fds.socket(request.fd);
  if (fd === undefined || !hasSockets(tree)) return fds.errnoOfOpen(request.fd);
  const peer = tree.acceptOn(fd.handle);
  if (peer < 0) return peer;
  reply.putSizedText("");
  from.donate(peer, true);
  return 0;
};
