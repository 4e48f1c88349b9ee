/* The API server alone, as the tests start it. */
#include "apiserver/apiserver.h"

int main(int argc, char **argv)
{
	return kube_apiserver_main(argc, argv);
}
