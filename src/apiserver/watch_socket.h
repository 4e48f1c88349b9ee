/*
 * apiserver/watch_socket.h: a watch over a WebSocket (upstream's WatchServer.HandleWS): one message an event, text
 * or binary as the encoding is. What the client sends is dropped; its close ends the watch.
 */
#ifndef SKIFF_APISERVER_WATCH_SOCKET_H
#define SKIFF_APISERVER_WATCH_SOCKET_H

#include "apiserver/server.h"

struct watch_socket;
/* Answers 101. The client's end of the connection cancels the fiber that called this. 400 for a handshake that is none. */
struct error *watch_socket_open(struct request *rq, struct watch_socket **out);
/* One event. A client that takes nothing for two minutes is given up: ETIMEDOUT. */
struct error *watch_socket_send(struct watch_socket *s, struct str event);
/* Says goodbye unless the client has gone, and frees; NULL is allowed. */
void watch_socket_close(struct watch_socket *s);

#endif
