/* The controller manager alone, for tests and for work on it. */
#include "controller/controller.h"

int main(int argc, char **argv)
{
	return kube_controller_manager_main(argc, argv);
}
