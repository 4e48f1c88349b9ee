/* apiserver/apiserver.h: the component itself, under upstream's name and flags. Returns the process's exit status. */
#ifndef SKIFF_APISERVER_APISERVER_H
#define SKIFF_APISERVER_APISERVER_H
int kube_apiserver_main(int argc, char **argv);
#endif
