// Private endpoints of everything that the app uses, and the zones by which their names lead to them.
param token string
param location string
param tags object
param networkId string
param subnetId string
param hostStorageId string
param patientStorageId string
param foldersStorageId string
param cosmosId string
param vaultId string
param monitorScopeId string

var storageSuffix = environment().suffixes.storage

var zoneNames = {
  blob: 'privatelink.blob.${storageSuffix}'
  queue: 'privatelink.queue.${storageSuffix}'
  table: 'privatelink.table.${storageSuffix}'
  file: 'privatelink.file.${storageSuffix}'
  cosmos: 'privatelink.documents.azure.com'
  vault: 'privatelink.vaultcore.azure.net'
  web: 'privatelink.azurewebsites.net'
  monitor: 'privatelink.monitor.azure.com'
  oms: 'privatelink.oms.opinsights.azure.com'
  ods: 'privatelink.ods.opinsights.azure.com'
  agents: 'privatelink.agentsvc.azure-automation.net'
}

// What each endpoint leads to, and the zones that its names stand in.
var wanted = [
  { name: 'host-blob', target: hostStorageId, part: 'blob', zones: ['blob'] }
  { name: 'host-queue', target: hostStorageId, part: 'queue', zones: ['queue'] }
  { name: 'host-table', target: hostStorageId, part: 'table', zones: ['table'] }
  { name: 'patients-blob', target: patientStorageId, part: 'blob', zones: ['blob'] }
  { name: 'patients-queue', target: patientStorageId, part: 'queue', zones: ['queue'] }
  { name: 'folders-file', target: foldersStorageId, part: 'file', zones: ['file'] }
  { name: 'cosmos', target: cosmosId, part: 'Sql', zones: ['cosmos'] }
  { name: 'vault', target: vaultId, part: 'vault', zones: ['vault'] }
  { name: 'monitor', target: monitorScopeId, part: 'azuremonitor', zones: ['monitor', 'oms', 'ods', 'agents', 'blob'] }
]

resource zones 'Microsoft.Network/privateDnsZones@2020-06-01' = [
  for zone in items(zoneNames): {
    name: zone.value
    location: 'global'
    tags: tags
  }
]

resource links 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2020-06-01' = [
  for (zone, place) in items(zoneNames): {
    name: 'deployr-${token}'
    parent: zones[place]
    location: 'global'
    tags: tags
    properties: {
      registrationEnabled: false
      virtualNetwork: { id: networkId }
    }
  }
]

resource endpoints 'Microsoft.Network/privateEndpoints@2024-05-01' = [
  for each in wanted: {
    name: 'pe-${each.name}-${token}'
    location: location
    tags: tags
    properties: {
      subnet: { id: subnetId }
      privateLinkServiceConnections: [
        {
          name: each.name
          properties: { privateLinkServiceId: each.target, groupIds: [each.part] }
        }
      ]
    }
  }
]

resource names 'Microsoft.Network/privateEndpoints/privateDnsZoneGroups@2024-05-01' = [
  for (each, place) in wanted: {
    name: 'default'
    parent: endpoints[place]
    dependsOn: [zones]
    properties: {
      privateDnsZoneConfigs: [
        for zone in each.zones: {
          name: zone
          properties: { privateDnsZoneId: resourceId('Microsoft.Network/privateDnsZones', zoneNames[zone]) }
        }
      ]
    }
  }
]

output webZoneId string = resourceId('Microsoft.Network/privateDnsZones', zoneNames.web)
